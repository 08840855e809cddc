"""What pictures are made of: pages, colours, figures, maps, scatter plots and their scripts."""
