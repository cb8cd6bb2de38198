"""The page: views of a request, what a visitor can do, and how it looks in Gradio."""
