"""Programs that tests start: in a folder of their own, as Python puts a program's folder before all packages."""
