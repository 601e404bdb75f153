"""Realistic problems of every family: (input shape, weight shape, keywords)."""

SIGNALS = {"short": ((10_000,), (31,)), "long window": ((1_000_000,), (1001,)), "image 5x5": ((1024, 1024), (5, 5)),
           "image 63x63": ((1024, 1024), (63, 63)), "volume": ((64, 64, 64), (7, 7, 7))}
LAYERS = {
    "ResNet 56 3x3": ((1, 64, 56, 56), (64, 64, 3, 3), {"padding": 1}),
    "ResNet 14 1x1": ((1, 256, 14, 14), (1024, 256, 1, 1), {}),
    "ResNet stem": ((1, 3, 224, 224), (64, 3, 7, 7), {"padding": 3, "stride": 2}),
    "MobileNet depthwise": ((1, 128, 56, 56), (128, 1, 3, 3), {"padding": 1, "groups": 128}),
}
