"""Restores microscope frames while they are being acquired."""
