"""
A tree of files as a source and as a target of restores.

`tree` reads a tree (`walk` finds entries in order, `reading` opens their content, `patterns` says
what is left out); `target` brings one back (`loading` writes beside what is there, `comparing`
reads it again, `switch` moves it into place by a `journal` that can be walked backwards).
Every name is opened relative to an open directory and no link is ever followed below the root.
"""
