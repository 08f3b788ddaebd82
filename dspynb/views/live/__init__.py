"""The live view: what is sent to the browser, and the widget."""
