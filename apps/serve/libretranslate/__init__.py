"""LibreTranslate's interface, for the programs and browser extensions that speak it."""
