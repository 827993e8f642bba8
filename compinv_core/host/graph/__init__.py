"""What the editor shows and asks beside the run itself."""
