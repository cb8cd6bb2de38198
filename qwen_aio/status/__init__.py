"""What every worker says of itself, and the file that all workers of a machine share."""
