"""`woodshed demo`: the main job on a small folder of songs, and a page to hear and see what it did."""
