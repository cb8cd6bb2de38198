"""The forward pass in C++ (native/ at the root), for numpy: no torch."""
