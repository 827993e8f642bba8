"""What is learned from: photos and masks, checked and brought to size, and as the autoencoder encodes them."""
