"""Many rows of a file through one task: reading, asking, writing so that a killed run can go on."""
