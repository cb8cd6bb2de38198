"""The pieces of the page as HTML, and their style. Pure functions; knows no Gradio."""
