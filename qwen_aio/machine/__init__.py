"""The cores and the memory of this machine, within the limits of control groups, and its folders."""
