"""Files: where they are, how they are written whole or not at all, who may work on them.

files      read and written atomically
paths      the home folder and its caches
locks      that die with their process
serial     frozen records as JSON
yaml_text  YAML with the place of every mistake
"""
