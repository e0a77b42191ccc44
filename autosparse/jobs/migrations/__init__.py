"""How databases of jobs made by earlier versions are brought up to date."""
