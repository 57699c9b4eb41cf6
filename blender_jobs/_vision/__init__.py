"""What lies beneath the view: the camera's arithmetic, boxes, silhouettes, visibility, evaluated shapes."""
