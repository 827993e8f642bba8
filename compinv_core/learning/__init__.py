"""Learning an own thing from photos: methods and their settings, concepts, the loss, and the files that come out."""
