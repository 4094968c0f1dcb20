"""What stands between the network and the server: which requests are let in, how large they may be, and what errors may say."""
