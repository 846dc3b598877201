"""Other people's models with their own quantizer and with ours."""
