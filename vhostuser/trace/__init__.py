"""What passes between a front-end and a back-end, in words."""
