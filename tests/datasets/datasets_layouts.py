"""Writes small files in the exact layout in which each data set is distributed. The figures are made up."""

from __future__ import annotations

import gzip
import json
import tarfile
import zipfile

import numpy as np

FLAGS = 19


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def zipped(folder, to=None):
    """The folder as a .zip with the folder itself on top, as GroupLens does."""
    to = to or folder.with_suffix(".zip")
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as pack:
        pack.writestr("__MACOSX/._u.data", "junk")
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                pack.write(file, f"{folder.name}/{file.relative_to(folder)}")
    return to


def tarred(folder, to, mode="w:gz"):
    with tarfile.open(to, mode) as pack:
        pack.add(folder, arcname=folder.name)
    return to


def gzipped(file):
    to = file.with_name(file.name + ".gz")
    to.write_bytes(gzip.compress(file.read_bytes()))
    return to


def ml_100k(top):
    folder = top / "ml-100k"
    write(
        folder / "u.data",
        "196\t242\t3\t881250949\n186\t302\t3\t891717742\n196\t302\t5\t881250950\n22\t377\t1\t878887116\n",
    )
    flags = ["|".join("1" if k in on else "0" for k in range(FLAGS)) for on in ((8,), (1, 16), (0,))]
    items = (
        f"242|Kolya (1996)|24-Jan-1997||http://us.imdb.com/M/title-exact?Kolya%20(1996)|{flags[0]}\n"
        f"302|Misérables, Les (1995)|01-Jan-1995||http://us.imdb.com/x|{flags[1]}\n"
        f"377|unknown||||{flags[2]}\n"
    )
    write(folder / "u.item", items, "latin-1")
    write(folder / "u.user", "22|25|M|writer|40206\n186|39|F|executive|00000\n196|49|M|writer|55105\n")
    write(folder / "u1.base", "1\t1\t5\t874965758\n")
    return folder


def ml_1m(top):
    folder = top / "ml-1m"
    write(folder / "ratings.dat", "1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978298413\n")
    write(
        folder / "movies.dat",
        "661::James and the Giant Peach (1996)::Animation|Children's\n1193::Misérables, Les (1995)::Drama\n",
        "latin-1",
    )
    write(folder / "users.dat", "1::F::1::10::48067\n2::M::56::16::70072\n")
    return folder


def ml_10m(top):
    folder = top / "ml-10M100K"
    write(folder / "ratings.dat", "1::122::5::838985046\n1::185::4.5::838983525\n2::122::0.5::868245777\n")
    write(
        folder / "movies.dat",
        "122::Boomerang (1992)::Comedy|Romance\n185::Misérables, Les (1995)::(no genres listed)\n",
    )
    write(folder / "tags.dat", "15::4973::excellent!::1215184630\n")
    return folder


def ml_csv(top, name="ml-32m"):
    folder = top / name
    write(
        folder / "ratings.csv",
        "userId,movieId,rating,timestamp\n1,17,4.0,944249077\n1,25,1.0,944250228\n2,17,0.5,943230976\n",
    )
    write(
        folder / "movies.csv",
        'movieId,title,genres\n17,Sense and Sensibility (1995),Drama|Romance\n25,"American President, The (1995)",Comedy|Drama\n'
        '26,"The ""Other"" One (1995)",(no genres listed)\n',
    )
    write(folder / "links.csv", "movieId,imdbId,tmdbId\n17,0114388,4584\n25,0112346,\n26,0114279,16420\n")
    write(folder / "tags.csv", "userId,movieId,tag,timestamp\n22,26,classic,1583038886\n")
    return folder


def amazon_2014(top):
    return write(
        top / "ratings_Musical_Instruments.csv",
        "A1YS9MDZP93857,0006428320,3.0,1394496000\nA3TS466QBAWB9D,0014072149,5.0,1370476800\nA3BUDYITWUSIS7,0041291905,5.0,1381708800\n",
    )


def amazon_2018(top):
    return write(
        top / "Musical_Instruments.csv",
        "0006428320,A1YS9MDZP93857,3.0,1394496000\n0014072149,A3TS466QBAWB9D,5.0,1370476800\n",
    )


def amazon_2023(top, name="All_Beauty.csv"):
    return write(
        top / name,
        "user_id,parent_asin,rating,timestamp\n"
        "AGKHLEW2SOWHNMFQIJGBECAF7INQ,B00YQ6X8EO,5.0,1588687728923\n"
        "AGKHLEW2SOWHNMFQIJGBECAF7INQ,B081TJ8YS3,4.0,1588615855070\n",
    )


def amazon_2023_reviews(top):
    reviews = [
        {"rating": 5.0, "title": "Such a lovely scent", "text": "Spray, \"not\" oil.", "images": [], "asin": "B00YQ6X8E1",
         "parent_asin": "B00YQ6X8EO", "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ", "timestamp": 1588687728923,
         "helpful_vote": 0, "verified_purchase": True},
        {"rating": 1.0, "title": "Meh", "text": "Café\nno", "images": [], "asin": "B081TJ8YS3",
         "parent_asin": "B081TJ8YS3", "user_id": "AFQLNQNQYFWQZPJQZS6V3NZU4QBQ", "timestamp": 1588615855070,
         "helpful_vote": 1, "verified_purchase": True},
    ]  # fmt: skip
    meta = [
        {"main_category": "All Beauty", "title": "Hair Spray", "average_rating": 4.8, "rating_number": 10, "features": [],
         "description": [], "price": 13.99, "images": [], "videos": [], "store": "Howard", "categories": ["Hair", "Spray"],
         "details": {}, "parent_asin": "B00YQ6X8EO", "bought_together": None},
        {"main_category": "All Beauty", "title": "Unrated", "price": "$1,009.50", "store": None, "categories": [],
         "parent_asin": "B000000000"},
        {"main_category": None, "title": "Brush", "price": None, "store": None, "categories": [],
         "parent_asin": "B081TJ8YS3"},
    ]  # fmt: skip
    write(top / "All_Beauty.jsonl", "".join(json.dumps(r) + "\n" for r in reviews))
    write(top / "meta_All_Beauty.jsonl", "".join(json.dumps(r) + "\n" for r in meta))
    return top


def netflix_movies(top):
    folder = top / "training_set"
    write(folder / "mv_0000001.txt", "1:\n1488844,3,2005-09-06\n822109,5,2005-05-13\n")
    write(folder / "mv_0000002.txt", "2:\n1488844,4,2005-09-05\n")
    write(folder / "mv_0000010.txt", "10:\n822109,1,2004-12-31\n")
    return top


def netflix_combined(top):
    write(top / "combined_data_1.txt", "1:\n1488844,3,2005-09-06\n822109,5,2005-05-13\n2:\n1488844,4,2005-09-05\n")
    write(top / "combined_data_2.txt", "10:\n822109,1,2004-12-31\n")
    titles = "1,2003,Dinosaur Planet\n2,NULL,Isle of Man TT, 2004 Review\n10,2001,Fräulein\n"
    write(top / "movie_titles.csv", titles, "latin-1")
    return top


def yelp(top):
    reviews = [
        {"review_id": "KU_O5udG6zpxOg-VcAEodg", "user_id": "mh_-eMZ6K5RLWhZyISBhwA", "business_id": "XQfwVwDr-v0ZS3_CbbE5Xw",
         "stars": 3.0, "useful": 0, "funny": 0, "cool": 0, "text": "If you\ndecide", "date": "2018-07-07 22:09:11"},
        {"review_id": "BiTunyQ73aT9WBnpR9DZGw", "user_id": "OyoGAe7OKpv6SyGZT5g77Q", "business_id": "XQfwVwDr-v0ZS3_CbbE5Xw",
         "stars": 5.0, "useful": 1, "funny": 0, "cool": 1, "text": "I've", "date": "2012-01-03 15:28:18"},
    ]  # fmt: skip
    business = [
        {"business_id": "XQfwVwDr-v0ZS3_CbbE5Xw", "name": "Turning Point", "address": "1460 Bethlehem Pike",
         "city": "North Wales", "state": "PA", "postal_code": "19454", "latitude": 40.2, "longitude": -75.2, "stars": 3.0,
         "review_count": 169, "is_open": 1, "attributes": None, "categories": "Restaurants, Coffee & Tea",
         "hours": None},
        {"business_id": "unrated", "name": "x", "categories": None},
    ]  # fmt: skip
    users = [
        {"user_id": "mh_-eMZ6K5RLWhZyISBhwA", "name": "W", "review_count": 585, "yelping_since": "2007-01-25 16:47:26",
         "fans": 267, "average_stars": 3.9, "friends": "OyoGAe7OKpv6SyGZT5g77Q, pe42u7DcCH2QmI81NX-8qA"},
        {"user_id": "OyoGAe7OKpv6SyGZT5g77Q", "name": "D", "review_count": 3, "yelping_since": "2009-01-25 04:35:42",
         "fans": 0, "average_stars": 5.0, "friends": "None"},
    ]  # fmt: skip
    for name, rows in (("review", reviews), ("business", business), ("user", users)):
        write(top / f"yelp_academic_dataset_{name}.json", "".join(json.dumps(row) + "\n" for row in rows))
    return top


def douban(top):
    folder = top / "douban"
    write(folder / "book_ratings.dat", "1\t1630\t4\n1\t1181\t4\n2\t6061\t5\n")
    write(folder / "music_ratings.dat", "2\t3601\t3\n1\t1630\t5\n")
    return folder


def cdrib(top):
    folder = top / "cdrib"
    rows = {
        "game_video": ("4\t0\n4\t1\n0\t1\n1\t0\n2\t3\n", "3\t0\n", "3\t1\n"),
        "video_game": ("4\t0\n5\t2\n0\t2\n3\t0\n3\t2\n", "2\t0\n", "2\t2\n2\t1\n"),
    }
    for name, texts in rows.items():
        for split, text in zip(("train", "valid", "test"), texts, strict=True):
            write(folder / name / f"{split}.txt", text)
    return folder


CIAO = "user,item,category,rating,helpfulness,unix_time\n"


def ciao(top):
    folder = top / "ciao"
    write(
        folder / "ratings.csv", CIAO + "1,92579,24,5,4,959670000\n2,77965,4,4,0,959756400\n2,92579,24,1,4,959756401\n"
    )
    write(folder / "trust.csv", "truster,trustee\n1,2\n2,1\n")
    return folder


def tang(top, times=True):
    """The .mat files of Tang et al."""
    from scipy.io import savemat

    rows = np.array([[1, 92579, 24, 5, 4, 959670000], [2, 77965, 4, 4, 0, 959756400], [2, 92579, 24, 1, 4, 959756401]])
    folder = top / "epinions"
    folder.mkdir(parents=True)
    if times:
        savemat(folder / "rating_with_timestamp.mat", {"rating_with_timestamp": rows.astype(np.uint32)})
    else:
        savemat(folder / "rating.mat", {"rating": rows[:, :5].astype(np.float64)})
    savemat(folder / "trustnetwork.mat", {"trustnetwork": np.array([[1, 2], [2, 1]], dtype=np.uint16)})
    return folder


def ciaodvd(top):
    folder = top / "CiaoDVD"
    write(
        folder / "movie-ratings.txt", "1,92579,17,1,5,2000-05-30\n2,77965,5,2,4,2000-05-31\n2,92579,17,3,1,2000-06-01\n"
    )
    write(folder / "trusts.txt", "1,2,1\n2,1,1\n")
    return folder


def massa(top):
    folder = top / "epinions"
    write(folder / "ratings_data.txt", "1 92579 5\n2 77965 4\n2 92579 1\n")
    write(folder / "trust_data.txt", " 1 2 1 \n 2 1 1 \n")
    return folder


def movietweetings(top):
    folder = top / "movietweetings"
    write(folder / "ratings.dat", "1::0114508::8::1381006850\n2::0208092::0::1586466072\n2::0114508::10::1579057827\n")
    write(
        folder / "movies.dat",
        "0114508::Species (1995)::Action|Horror|Sci-Fi\n0208092::Fantômas - À l'ombre (1913)::Crime\n",
    )
    write(folder / "users.dat", "1::139564917\n2::522540374\n")
    return folder


def anime(top):
    folder = top / "anime"
    write(folder / "rating.csv", "user_id,anime_id,rating\n1,20,-1\n1,24,8\n3,20,10\n")
    write(
        folder / "anime.csv",
        "anime_id,name,genre,type,episodes,rating,members\n"
        '20,"Naruto, TV","Action, Comedy",TV,220,7.81,683297\n24,School Rumble,"Comedy, School",Movie,1,8.06,178553\n',
    )
    return folder


def recbole(top):
    folder = top / "toy"
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    write(
        folder / "toy.inter",
        header + "u1\tHeat (1995)\t3\t881250949\nu2\tHeat (1995)\t5\t881250950.0\nu2\t007\t1\t881250951\n",
    )
    write(
        folder / "toy.item",
        "item_id:token\tmovie_title:token_seq\trelease_year:float\tclass:token_seq\n"
        "Heat (1995)\tHeat\t1995\tAction Crime\n007\tDr No\t\tAction\n",
    )
    write(folder / "toy.user", "user_id:token\tage:float\nu1\t24\nu2\t53\n")
    write(folder / "toy.net", "source_id:token\ttarget_id:token\nu1\tu2\nu2\tu2\n")
    return folder
