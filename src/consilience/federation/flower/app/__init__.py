"""The app that Flower carries to the parties; see `relay`."""
