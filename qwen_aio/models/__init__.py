"""Where models are found. The bundled one lies beside this code, in `bundled/`. Loads no weights, imports no torch."""
