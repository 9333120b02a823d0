"""Tools of translators: terms that stay, review files, source and translation side by side, what glossaries did."""
