"""Reading the public Atari data sets from local files: each module turns one format into `SourceEpisode`s."""
