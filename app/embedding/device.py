"""What imports PyTorch alone: whether it can use a device."""

import torch

from app.errors import UnavailableError


def check_device(device: str) -> None:
    """Raises UnavailableError if PyTorch cannot use the device."""
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:
        raise UnavailableError(
            f"the device {device!r} cannot be used ({first_line(error)}); set AFTERIMAGE_EMBEDDING_DEVICE to cpu"
        ) from error


def first_line(error: Exception) -> str:
    """The start of a library's message, which may be a page long."""
    return (str(error) or type(error).__name__).splitlines()[0]
