"""What `woodshed sample` does, once its command line is read."""
