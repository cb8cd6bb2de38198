"""Model folders. The bundled one is `bundled/` in this package. No torch, no weights loaded."""
