"""Settings: one tree of typed fields, the presets that state differences, and the errors a person can mend."""
