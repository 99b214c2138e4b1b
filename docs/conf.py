"""How `make docs` builds the site: offline, from the docstrings, the guides and the examples."""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported
os.environ.setdefault("MPLBACKEND", "Agg")
sys.path[:0] = [str(Path(__file__).parent / "_extensions"), str(Path(__file__).parents[1])]

import example_pages  # noqa: E402 - needs the path above

import keras_fwd  # noqa: E402 - needs the variables above

ROOT = Path(__file__).resolve().parents[1]

project = "keras_fwd"
author = "the keras_fwd authors"
copyright = author
version = release = keras_fwd.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "api_pages",
    "page_links",
]
exclude_patterns = ["_extensions", "gallery/*.md5", "**/README.md"]
needs_sphinx = "8.2"
nitpicky = False  # docstrings mark code and names alike with single backticks

# Docstrings: Google's sections, and single backticks that link where the name is one of ours.
default_role = "py:obj"
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Cost"]
napoleon_use_ivar = True
napoleon_use_rtype = False
autodoc_inherit_docstrings = False  # Keras' own are Markdown
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autosummary_generate = False  # `api_pages` writes them, from `__all__`
python_maximum_signature_line_length = 88
python_display_short_literal_types = True

myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "html_image"]
myst_heading_anchors = 3

sphinx_gallery_conf = {
    "examples_dirs": [str(example_pages.staged(ROOT))],
    "gallery_dirs": ["gallery"],
    "filename_pattern": r"/\d",
    "ignore_pattern": r"(^|/)[^/0-9][^/]*\.py$",
    "within_subsection_order": "FileNameSortKey",
    "reset_modules": ("matplotlib", "example_pages.reset"),
    "abort_on_example_error": True,
    "image_scrapers": ("example_pages.pictures",),
    "capture_repr": (),
    "min_reported_time": 0,
    "show_signature": False,
    "write_computation_times": False,
    "copyfile_regex": "",
}

html_theme = "furo"
html_title = f"keras_fwd {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"top_of_page_buttons": []}
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
