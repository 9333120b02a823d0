"""Conversations: messages and the templates that render them."""
