"""What a view's annotations share: segmentation ids, and the categories that the job declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blender_jobs.imaging.geometry import Label
from blender_jobs.imaging.segments import BodyId
from blender_jobs.parts import suggestion
from blender_jobs.vision.surfaces import Body


class Register:
    """The objects described so far, held against the declared categories.

    Args:
        categories: COCO's ``categories``; none where the job declares none, and then every category goes.
    """

    def __init__(self, categories: Sequence[Mapping[str, Any]]) -> None:
        self._categories = {category["name"]: category for category in categories}
        self.labels: dict[BodyId, Label] = {}
        """In the order of their segmentation ids."""

    def enter(self, body: Body, name: str, category: str) -> dict[str, int]:
        """Enter an object, or one copy of it, under its name.

        Returns:
            its ``segmentation_id``, and its ``category_id`` where categories are declared.

        Raises:
            ValueError: the category is not declared, or the object was described in another one; one line.
        """
        if self._categories and category not in self._categories:
            hint = suggestion(category, self._categories)
            raise ValueError(f"object {name!r}: category {category!r} is not declared by the job{hint}")
        ids = {"category_id": int(self._categories[category]["id"])} if self._categories else {}
        category_id, known = ids.get("category_id", 0), self.labels.get((body.owner, body.key))
        if known is not None and known.category_id != category_id:
            raise ValueError(f"object {name!r} is described already, in another category than {category!r}")
        number = len(self.labels) + 1 if known is None else known.segmentation_id
        self.labels[body.owner, body.key] = Label(number, category_id, body.matrix, body.box)
        return {"segmentation_id": number, **ids}

    def names(self, owner: str, category: str, given: Sequence[str] | None, default: Sequence[str]) -> list[str]:
        """Return the names of an object's keypoints.

        Args:
            owner: the object's name.
            category: its category, whose keypoints are the template if it has any.
            given: names to be held against the template; None: the template's, if there are as many.
            default: K names, where neither tells.

        Raises:
            ValueError: another number of names than keypoints, or other ones than the template's; one line.
        """
        if given is not None and len(given) != len(default):
            raise ValueError(f"object {owner!r}: {len(given)} keypoint_names for {len(default)} keypoints")
        template = list(self._categories.get(category, {}).get("keypoints", ()))
        if not template:
            return list(default if given is None else given)
        if len(template) != len(default):
            raise ValueError(
                f"object {owner!r}: category {category!r} has {len(template)} keypoints ({_few(template)}),"
                f" not {len(default)} ({_few(default)})"
            )
        for at, (name, wanted) in enumerate(zip(given or template, template, strict=True)):
            if name != wanted:
                raise ValueError(
                    f"object {owner!r}: keypoint {at} is named {name!r}, but {wanted!r} in category {category!r}:"
                    " give the same names in the same order"
                )
        return template


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "") if names else "none"
