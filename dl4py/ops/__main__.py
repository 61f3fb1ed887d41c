"""``python -m dl4py.ops``: which kernels serve each device here."""

import torch

from dl4py.ops import library


def main() -> None:
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        print(f"{device}: {library.origin(device)}")


if __name__ == "__main__":
    main()
