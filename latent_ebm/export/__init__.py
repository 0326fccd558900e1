"""Trained networks and detectors for programs that know nothing of this library."""

from latent_ebm.export.networks import export_diffusers, export_onnx

__all__ = ["export_diffusers", "export_onnx"]
