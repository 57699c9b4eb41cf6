"""What runs inside Blender: jobs, the scene, the view, the renderer, and the worker that drives them."""
