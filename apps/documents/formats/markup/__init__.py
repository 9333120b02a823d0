"""Formats with tags: HTML, SVG and what is made of XML."""
