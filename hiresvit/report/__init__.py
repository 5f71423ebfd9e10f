"""What a person sees: tables, charts, pictures. Nothing here measures."""
