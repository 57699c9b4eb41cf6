"""What the view is computed with: the camera's arithmetic, boxes, silhouettes, visibility, evaluated shapes."""
