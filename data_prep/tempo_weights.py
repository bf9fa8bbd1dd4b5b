"""How much each fact of `tempo.evidence` counts for a candidate being the beat.

Fitted by `python -m benchmarks.tempo --fit` on 480 synthesised grooves of 20 families and 29 pieces from
openttd-openmsx through FluidSynth; what it says of music that was left out stands in docs/benchmarks.md.
"""

# fmt: off
WEIGHTS = (
    1.638, -2.941, -0.5323, -0.8554, -2.927, 0.4671, -1.634, 0.3191, -0.448, -0.3392, 1.89, -0.5963, 3.171,
    4.366, 0.672, -0.6986, 3.816, 1.381, -1.439, 0.2771, -0.8306, 0.2107, 1.048, 0.2712, 1.752, -0.3819, 0.2275,
    0.02264, -0.5769, -2.2, 1.375, -4.705, -0.2247, 1.378, 0.178, 0.1174, 0.9925, 0.2576, 0.6605, 2.223, 0.651,
    -1.164, -1.495, 0.8034, -2.294, -0.001362, -2.25, 0.008531, 0.2334, -0.04403, -3.746, -0.1757, -0.2431,
    0.02157, -0.6764, -0.6588, -3.158, -1.114, 0.3449, -0.8582, 1.542, 2.308, 0.2846, 2.311, 0.8691, -3.702,
    2.801, 2.863, 2.779,
)
# fmt: on
