"""How a translation is found: beam search and sampling over one model or several."""
