"""Trained networks and models for programs that know nothing of this library."""

from latent_ebm.export.networks import export_diffusers, export_onnx
from latent_ebm.export.page import export_page
from latent_ebm.export.pipelines import export_pipeline
from latent_ebm.export.text_to_image import export_text_to_image

__all__ = [
    "export_diffusers",
    "export_onnx",
    "export_page",
    "export_pipeline",
    "export_text_to_image",
]
