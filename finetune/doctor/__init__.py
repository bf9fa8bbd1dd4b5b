"""What `woodshed doctor` looks at: one file per kind of check, each check a function that returns a `Check`."""
