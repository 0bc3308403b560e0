"""What a study or a run came to, as pages for people: HTML, Markdown, tables and plots."""
