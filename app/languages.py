"""The programming language of a file, by its name."""

import posixpath

BY_NAME = {
    "cmakelists.txt": "cmake",
    "containerfile": "dockerfile",
    "dockerfile": "dockerfile",
    "gemfile": "ruby",
    "jenkinsfile": "groovy",
    "makefile": "makefile",
    "rakefile": "ruby",
}

BY_EXTENSION = {
    ".bash": "shell", ".c": "c", ".cc": "cpp", ".clj": "clojure", ".cmake": "cmake", ".cpp": "cpp", ".cs": "csharp",
    ".css": "css", ".cxx": "cpp", ".dart": "dart", ".erl": "erlang", ".ex": "elixir", ".exs": "elixir", ".fs": "fsharp",
    ".go": "go", ".gradle": "groovy", ".groovy": "groovy", ".h": "c", ".hpp": "cpp", ".hs": "haskell", ".html": "html",
    ".ini": "ini", ".ipynb": "jupyter", ".java": "java", ".jl": "julia", ".js": "javascript", ".json": "json",
    ".jsx": "javascript", ".kt": "kotlin", ".kts": "kotlin", ".lua": "lua", ".m": "objective-c", ".md": "markdown",
    ".mjs": "javascript", ".ml": "ocaml", ".mm": "objective-c", ".nix": "nix", ".php": "php", ".pl": "perl",
    ".proto": "protobuf", ".ps1": "powershell", ".py": "python", ".pyi": "python", ".pyx": "cython", ".r": "r",
    ".rb": "ruby", ".rs": "rust", ".rst": "restructuredtext", ".sass": "sass", ".scala": "scala", ".scss": "scss",
    ".sh": "shell", ".sql": "sql", ".svelte": "svelte", ".swift": "swift", ".tex": "tex", ".tf": "terraform",
    ".toml": "toml", ".ts": "typescript", ".tsx": "typescript", ".vue": "vue", ".xml": "xml", ".yaml": "yaml",
    ".yml": "yaml", ".zig": "zig", ".zsh": "shell",
}  # fmt: skip


def language_of(file_path: str) -> str | None:
    """Lower-case name of the language, None if the file name does not tell."""
    name = posixpath.basename(file_path.replace("\\", "/").rstrip("/")).lower()
    return BY_NAME.get(name) or BY_EXTENSION.get(posixpath.splitext(name)[1])
