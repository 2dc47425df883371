"""The CUDA platform images: recipes as data, made into layers from public packages."""
