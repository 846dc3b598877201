"""The published runs on RayShapes: trained, kept, chosen from, and put into tables."""
