"""The tensors of a module by name, on their way to a file and back."""

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from latent_ebm.artefacts.describing import Node
from latent_ebm.foreign import check_tensor


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of ``module`` by name. Raises ``ValueError`` for other state."""
    state = module.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} must be a tensor to be saved, got a {type(value).__name__}")
    return state


def plain(name: str, value: Tensor) -> Tensor:
    """A copy of ``value`` on the CPU that shares its memory with no other tensor."""
    if value.is_meta:
        raise ValueError(f"{name} must have values to be saved, got a tensor on the meta device")
    copy = value.detach().cpu().contiguous().clone()
    check_tensor(name, copy)
    return copy


def fill(module: nn.Module, tensors: Mapping[str, Tensor], tree: Node) -> None:
    """Load ``tensors`` into ``module``, in their own precision. Tensors that are only arguments of
    constructors are left out.
    """
    arguments, wanted = set(tensor_paths(tree)), module.state_dict()
    state = {n: value for n, value in tensors.items() if n in wanted or n not in arguments}
    if names := sorted(state.keys() ^ wanted.keys()):
        what = "is missing" if names[0] in wanted else "is none of its configuration"
        raise ValueError(f"its tensors must be those of its configuration, but {names[0]} {what}")
    for name, value in state.items():
        shape, kind = wanted[name].shape, wanted[name].is_floating_point()
        if value.shape != shape or value.is_floating_point() != kind:
            raise ValueError(
                f"{name} must be a tensor of {'floating' if kind else 'whole'} numbers of shape "
                f"{tuple(shape)}, as its configuration says, got {value.dtype} of shape "
                f"{tuple(value.shape)}"
            )
    module.load_state_dict(state, assign=True)


def tensor_paths(tree: Node) -> Iterator[str]:
    """The names of all tensors that are arguments in ``tree``."""
    if isinstance(tree, dict):
        if isinstance(name := tree.get("tensor_path"), str):
            yield name
        for part in tree.values():
            yield from tensor_paths(part)
    if isinstance(tree, list):
        for part in tree:
            yield from tensor_paths(part)
