"""The programs that nconv is tried on: published packages that ship their tests and convolve through SciPy."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Program:
    """One package, in the version that is tried."""

    name: str
    requirements: tuple[str, ...]            # the package, then what its tests need beside pytest
    tests: tuple[str, ...]                   # modules with tests: those that come near a convolution
    offline: tuple[str, ...] = ()            # pytest arguments that leave out what needs the network


PROGRAMS = (
    Program("scikit-image", ("scikit-image==0.25.2", "pooch", "matplotlib"),
            ("skimage.filters.tests.test_edges", "skimage.filters.tests.test_gaussian",
             "skimage.filters.tests.test_gabor", "skimage.filters.tests.test_correlate",
             "skimage.feature.tests.test_template", "skimage.feature.tests.test_canny",
             "skimage.restoration.tests.test_restoration")),
    Program("photutils", ("photutils==3.0.0", "pytest-remotedata", "pytest-doctestplus", "scikit-image", "matplotlib"),
            ("photutils.utils.tests.test_convolution", "photutils.detection.tests",
             "photutils.segmentation.tests.test_core", "photutils.segmentation.tests.test_detect",
             "photutils.segmentation.tests.test_finder")),
    Program("statsmodels", ("statsmodels==0.15.0", "matplotlib"),
            ("statsmodels.tsa.tests.test_arima_process", "statsmodels.tsa.tests.test_seasonal",
             "statsmodels.tsa.tests.test_varma_process", "statsmodels.tsa.filters.tests.test_filters")),
    Program("obspy", ("obspy==1.5.1", "setuptools<81"),
            ("obspy.signal.tests.test_cross_correlation", "obspy.signal.tests.test_cpxtrace",
             "obspy.signal.tests.test_freqattributes", "obspy.signal.tests.test_filter")),
    Program("elephant", ("elephant==1.2.1",),
            ("elephant.test.test_statistics", "elephant.test.test_signal_processing",
             "elephant.test.test_spike_train_correlation", "elephant.test.test_kernels")),
    Program("gwpy", ("gwpy==4.1.0", "pytest-freezer", "requests-mock"),
            ("gwpy.timeseries.tests.test_timeseries",)),
    Program("nilearn", ("nilearn==0.14.1", "matplotlib"), ("nilearn.image.tests.test_image",)),
    Program("dipy", ("dipy==1.12.1",),
            ("dipy.align.tests.test_metrics", "dipy.align.tests.test_scalespace",
             "dipy.denoise.tests.test_noise_estimate")),
)
