"""What training methods are made of: local steps, clipping, gradients, aggregation. Not methods themselves."""
