"""Draws from a log-density or a denoiser; knows no model."""

from samplers.base import Info, Sampler, State
from samplers.captured import Captured, Given
from samplers.chains import PersistentChains
from samplers.densities import (
    Density,
    LogDensity,
    Sum,
    as_density,
    gradient_function,
    value_and_grad,
)
from samplers.diagnostics import acceptance, ess, kernel_stein_discrepancy, split_rhat
from samplers.gradient_flow import GradientFlow
from samplers.hmc import HMC
from samplers.importance import (
    annealed_importance,
    effective_sample_size,
    log_mean_exp,
    log_z_bracket,
    resample,
)
from samplers.langevin import MALA, Langevin, UnderdampedLangevin
from samplers.normalisers import Blend, annealed_along, bennett
from samplers.precision import LowPrecision
from samplers.probability_flow import ProbabilityFlow
from samplers.renoising import Renoising
from samplers.reverse import DDIM, Ancestral, Heun, ReverseSampler, bridge
from samplers.schedules import VE, Karras, Rectified, Schedule, VPCosine, VPLinear
from samplers.scores import Score
from samplers.targets import Banana, Gaussian, GaussianMixture
from samplers.tempering import Annealed, ParallelTempering, Tempered
from samplers.vp_discrete import VPDiscrete

__all__ = [
    "DDIM",
    "HMC",
    "MALA",
    "VE",
    "Ancestral",
    "Annealed",
    "Banana",
    "Blend",
    "Captured",
    "Density",
    "Gaussian",
    "GaussianMixture",
    "Given",
    "GradientFlow",
    "Heun",
    "Info",
    "Karras",
    "Langevin",
    "LogDensity",
    "LowPrecision",
    "ParallelTempering",
    "PersistentChains",
    "ProbabilityFlow",
    "Rectified",
    "Renoising",
    "ReverseSampler",
    "Sampler",
    "Schedule",
    "Score",
    "State",
    "Sum",
    "Tempered",
    "UnderdampedLangevin",
    "VPCosine",
    "VPDiscrete",
    "VPLinear",
    "acceptance",
    "annealed_along",
    "annealed_importance",
    "as_density",
    "bennett",
    "bridge",
    "effective_sample_size",
    "ess",
    "gradient_function",
    "kernel_stein_discrepancy",
    "log_mean_exp",
    "log_z_bracket",
    "resample",
    "split_rhat",
    "value_and_grad",
]
