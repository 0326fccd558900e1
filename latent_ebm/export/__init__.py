"""Trained networks and detectors for programs that know nothing of this library."""

from latent_ebm.export.networks import export_diffusers, export_onnx
from latent_ebm.export.pipelines import export_pipeline

__all__ = ["export_diffusers", "export_onnx", "export_pipeline"]
