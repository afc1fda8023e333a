BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v3.2.0.a');
CREATE TABLE evaluations (
	study_name VARCHAR(512) NOT NULL, 
	trial_number INTEGER NOT NULL, 
	cross_entropy FLOAT, 
	perplexity FLOAT, 
	link_perplexity FLOAT, 
	story_perplexity FLOAT, 
	bits_per_byte FLOAT, 
	accuracy FLOAT, 
	calibration_error FLOAT, 
	brier_score FLOAT, 
	entropy FLOAT, 
	mean_squared_logit FLOAT, 
	step BIGINT NOT NULL, 
	tokens BIGINT, 
	train_loss FLOAT, 
	temperature_perplexity FLOAT, 
	learning_rate FLOAT, 
	grad_norm FLOAT, 
	tokens_per_second FLOAT, 
	elapsed_seconds FLOAT, 
	peak_memory_bytes BIGINT, 
	PRIMARY KEY (study_name, trial_number, step)
);
INSERT INTO "evaluations" VALUES('tiny',0,5.36636048170828061643e+00,2.14082291689088691547e+02,2.14082291689088691547e+02,2.1435906757645886956e+02,3.69234878910883690394e+00,1.08870967741935484318e-01,1.06374119517333318163e-01,9.94233319836278162107e-01,5.62821494379351250358e+00,3.08964356081560254096e-02,4,256,5.58239161968231201171e+00,NULL,4.88987716166409611129e-03,1.32145106792449951171e+00,2.76168949811374022837e+03,1.03043321998484316281e-01,295714816);
INSERT INTO "evaluations" VALUES('tiny',1,5.3725288221913,2.15406905289507591308e+02,1.33834599987267864661e+02,2.15670072430301189574e+02,3.69659294389324255547e+00,1.12903225806451609769e-01,1.08999744540215617871e-01,9.94288403180337732045e-01,5.62870982962269916782e+00,2.81710750949118390873e-02,4,256,5.5917745828628540039e+00,NULL,4.88987716166409611129e-03,1.26045989990234375e+00,3.99696823717550705629e+03,7.65589169996019336394e-02,296583168);
INSERT INTO "evaluations" VALUES('tiny',0,5.02713384551386699428e+00,1.52495310615727021289e+02,1.52495310615727021289e+02,1.52980304072052291537e+02,3.45894235589300791389e+00,0.125,1.20607756448143546568e-01,9.90590793711523809328e-01,5.60754941740343681999e+00,1.61161701694401277018e-01,8,512,5.21760725975036621093e+00,NULL,2.75000000000000027408e-03,1.01639401912689208984e+00,5.39683428447600454071e+03,1.58937139998670318163e-01,297979904);
INSERT INTO "evaluations" VALUES('tiny',1,5.0467637969601542025e+00,1.55518360244337486624e+02,4.63525186090963572374e+01,1.56103159437079540335e+02,3.4724488334582073179e+00,1.20967741935483874549e-01,1.15538013791064583801e-01,9.9082187226703088978e-01,5.61053870185729,1.37807334335746184406e-01,8,512,5.29784274101257324218e+00,NULL,2.75000000000000027408e-03,9.55231308937072753906e-01,6.77521083745040687048e+03,1.22031308998884924221e-01,298651648);
INSERT INTO "evaluations" VALUES('tiny',0,4.90940986525627831582e+00,1.35559392491583764696e+02,1.35559392491583764696e+02,1.36169660623262274152e+02,3.37794183469529585295e+00,1.65322580645161282264e-01,1.58064316539469396083e-01,9.89058664248835706089e-01,5.59441127123371284568e+00,2.30580970404609564283e-01,12,768,4.96459424495697,2.28647851576105303199e+01,6.10122838335904545299e-04,1.06914699077606201171e+00,6.15698518030649938727e+03,2.31464366998807236086e-01,298635264);
INSERT INTO "evaluations" VALUES('tiny',1,4.94669708513444472686e+00,1.40709444243634123955e+02,3.29776433662084258449e+01,1.41409331410176832832e+02,3.40359747628621489567e+00,1.37096774193548376352e-01,1.31140430435358029681e-01,9.89538597724130108979e-01,5.60121365708689555873e+00,1.80954995234647114665e-01,12,768,5.15131378173828125e+00,2.30812077522809353533e+01,6.10122838335904545299e-04,1.00596082210540771484e+00,8.76825715548756852522e+03,1.65263031998620135709e-01,299438080);
INSERT INTO "evaluations" VALUES('tiny',2,5.44309913150725854791e+00,2.31157461890467800461e+02,2.31157461890467800461e+02,2.31416353615437884625e+02,3.74514916687490639901e+00,1.37096774193548376352e-01,1.36020493911459067204e-01,0.994879946352974,5.63018408321565200225e+00,1.44853637865444105636e-02,4,256,5.57603168487548828125e+00,NULL,2.51349215245681364971e-03,1.24014043807983398437e+00,3.63741383627719869773e+03,8.15232450004259590059e-02,295723008);
INSERT INTO "evaluations" VALUES('tiny',2,5.25952769287170873724e+00,1.92390602382272618347e+02,1.92390602382272618347e+02,1.92874573054225379557e+02,3.61884200180999604512e+00,1.00806451612903219539e-01,1.02879447186545985859e-01,9.93177939566873724253e-01,5.62472878925262,0.0493960824734982,8,512,5.37414383888244628906e+00,NULL,1.41355359055767167662e-03,1.01033735275268554687e+00,4.65223836711746571367e+03,1.45948023002347326837e-01,297857024);
INSERT INTO "evaluations" VALUES('tiny',2,5.19790186036017676229e+00,1.80892306117389381377e+02,1.80892306117389381377e+02,1.81362282912265442291e+02,3.57644006686220716773e+00,1.20967741935483874549e-01,1.20517222355345204887e-01,9.92540219137745483024e-01,5.62166683327767113809e+00,6.79252440440318294712e-02,12,768,5.24542880058288574218e+00,2.74054878938979058484e+01,3.13615028658529378276e-04,1.08064043521881103515e+00,5.37753329614489121012e+03,2.15636161002294102218e-01,298512384);
INSERT INTO "evaluations" VALUES('tiny.confirm',0,5.46577517518759581349e+00,2.36459081296191243382e+02,2.36459081296191243382e+02,2.37389078919603065294e+02,3.75555590345105727578e+00,7.47562296858071545502e-02,7.04438159699357080434e-02,9.95095181762203462305e-01,5.63087113216148,1.36278264506044972936e-02,3,192,5.60500876108805368147e+00,NULL,5.00000000000000097144e-03,1.0413328409194946289e+00,4.36297894205798274941e+03,6.94574029994328157044e-02,296509440);
INSERT INTO "evaluations" VALUES('tiny.confirm',0,5.14788876892040292432e+00,1.72067831614251645078e+02,1.72067831614251645078e+02,1.72954498387971483458e+02,3.53713488695862121602e+00,5.74214517876489721759e-02,5.60558709242297420471e-02,9.91990178209988804347e-01,5.61906835808139160093e+00,1.01681077604627037591e-01,6,384,5.34163188934326171875e+00,NULL,4.07251681765806450297e-03,1.15063178539276123046e+00,4.55371894160836745849e+03,1.32759787999930267687e-01,298508288);
INSERT INTO "evaluations" VALUES('tiny.confirm',1,5.47141652195063610264e+00,237.796798685171,1.80022850952647928577e+02,2.38700994464145907166e+02,3.75943209529215760511e+00,7.58396533044420340097e-02,7.15586484050658722111e-02,0.995141619850729,5.63123891981296420539e+00,1.20546482215844342339e-02,3,192,5.61202700932820608414e+00,NULL,5.00000000000000097144e-03,1.02022385597229,2524.57290406595,1.08039748999544826801e-01,296902656);
INSERT INTO "evaluations" VALUES('tiny.confirm',0,4.96410826200524457618e+00,1.43180813556398419447e+02,1.43180813556398419447e+02,1.44032279962716927459e+02,3.41085856830986555721e+00,0.0552546045503792,5.58112799628907169102e-02,9.89749040337580154869e-01,5.60292269323396485702e+00,1.94525296661603230852e-01,9,576,5.08134571711222360335e+00,NULL,2.05471176265636847751e-03,1.05947768688201904296e+00,3.40314652087190142992e+03,1.94951047001268307212e-01,299556864);
INSERT INTO "evaluations" VALUES('tiny.confirm',1,5.16098320497076823443e+00,1.74335779172883150065e+02,6.63735417363197797166e+01,1.7526506396211496508e+02,3.54613212614887451934e+00,8.34236186348862457373e-02,0.0811719943043793,9.92129202459899439681e-01,5.62038858223581350159e+00,0.0918207175601859,6,384,5.3844186464945478221e+00,NULL,4.07251681765806450297e-03,1.10250675678253173828e+00,6.21489072283788664217e+03,1.65618311999423895031e-01,300015616);
INSERT INTO "evaluations" VALUES('tiny.confirm',0,4.89498618726224066222e+00,1.33618160969182724789e+02,1.33618160969182724789e+02,1.3443124535166074907e+02,3.36336451530923774555e+00,6.93391115926327156193e-02,0.0627301291573716,0.988813577403485,5.5945939661234715956e+00,2.37179753145572297379e-01,12,768,4.95695384343465139664e+00,2.44163431136550208573e+01,6.10122838335904545299e-04,9.96104419231414794921e-01,5.50137638979349776488e+03,0.263979522002046,300212224);
INSERT INTO "evaluations" VALUES('tiny.confirm',1,4.99089727060766374933e+00,1.47068324396243923501e+02,3.5801803520502573975e+01,1.47996347925616248634e+02,3.42926540287216763402e+00,9.42578548212351097213e-02,8.71403518673698473939e-02,9.90076119631109086149e-01,5.60701722881775932449e+00,1.6620075148918775354e-01,9,576,5.21942297617594430647e+00,NULL,2.05471176265636847751e-03,9.98120427131652832031e-01,8.41217446678438682261e+03,2.07120627999756834469e-01,300015616);
INSERT INTO "evaluations" VALUES('tiny.confirm',1,4.93659950775030775815e+00,1.39295769100414446484e+02,3.00544745988451573732e+01,1.40183873558716271638e+02,3.39195719364160197528e+00,8.55904658721560185341e-02,8.03427188727855318139e-02,9.89353787408231544198e-01,5.60160310038507702756e+00,1.89907350808478897485e-01,12,768,5.16535504659016897477e+00,2.48050697905987469491e+01,6.10122838335904545299e-04,9.32757854461669921875e-01,4.85073345742381661699e+03,2.84175180000602267682e-01,300802048);
INSERT INTO "evaluations" VALUES('tiny.confirm',2,5.44799139905208384959e+00,2.32291116849599973189e+02,2.32291116849599973189e+02,2.33225150457544970093e+02,3.74333660000173829018e+00,4.76706392199349945903e-02,4.47827905052233521399e-02,9.94955501796623176247e-01,5.63058950634973953697e+00,1.35167620658374031117e-02,3,192,5.59823099772135446272e+00,NULL,5.00000000000000097144e-03,1.1322962045669555664e+00,2.10710673765096271389e+03,1.19411039000624441541e-01,296648704);
INSERT INTO "evaluations" VALUES('tiny.confirm',2,5.14633520142874534286e+00,1.71800720166251238646e+02,1.71800720166251238646e+02,1.7254849276684515757e+02,3.53606742454428868427e+00,1.35427952329360778982e-01,1.28588193556836705155e-01,9.91975771644650117231e-01,5.61911424707100692899e+00,9.07305937259380301806e-02,6,384,5.32953612009684274397e+00,NULL,4.07251681765806450297e-03,1.0607057809829711914e+00,4.88315723780756889014e+03,1.84286074001647648401e-01,298647552);
INSERT INTO "evaluations" VALUES('tiny.confirm',2,4.97658061051291245036e+00,1.44977797573382360951e+02,1.44977797573382360951e+02,1.45663593719008474633e+02,3.41942836867057309291e+00,1.37594799566630565657e-01,1.29137147881417557737e-01,9.8991748041605509556e-01,5.60448435352527951636e+00,1.70208502920063953212e-01,9,576,5.06795740127563476562e+00,NULL,2.05471176265636847751e-03,1.14279270172119140625e+00,4.38118170179868047847e+03,2.35242702003233716823e-01,298647552);
INSERT INTO "evaluations" VALUES('tiny.confirm',3,5.45532733415085,2.34001455202121491075e+02,1.73456686751769780128e+02,2.34897596507789330633e+02,3.74837715024108408812e+00,4.6587215601300108192e-02,0.0436462735896476,9.95015903968335724272e-01,5.63107819314380098063e+00,0.0114649138075349,3,192,5.60514736175537109375e+00,NULL,5.00000000000000097144e-03,1.10362040996551513671e+00,2.71561356448977130636e+03,0.0893736549987807,296648704);
INSERT INTO "evaluations" VALUES('tiny.confirm',3,5.16060288006667811089e+00,1.74269487541368022225e+02,7.14552644289214100581e+01,1.75042758490386518134e+02,3.54587080339171700771e+00,1.35427952329360778982e-01,1.28600673912999147185e-01,9.92124446745425103699e-01,5.62057729816126805388e+00,8.02664695492262547649e-02,6,384,5.37062136332194,NULL,4.07251681765806450297e-03,9.99408245086669921875e-01,9.61029502850335302314e+03,1.22528690998478850815e-01,298844160);
INSERT INTO "evaluations" VALUES('tiny.confirm',2,4.9136461131880109221e+00,1.3613487376771382742e+02,1.3613487376771382742e+02,1.36802470268434234407e+02,3.37618582477081474735e+00,1.37594799566630565657e-01,1.28468178444716557562e-01,9.8907183819447408446e-01,5.59712585209508617367e+00,2.06179378011373898305e-01,12,768,4.94117418924967477522e+00,2.37100368072959106764e+01,6.10122838335904545299e-04,1.06890332698822021484e+00,5.24955151210665735576e+03,3.02169568002682353835e-01,299433984);
INSERT INTO "evaluations" VALUES('tiny.confirm',3,4.99754671105067593828e+00,1.48049504996107884838e+02,4.05120407093013881185e+01,1.48769605393998091353e+02,3.43383425989793122923e+00,1.37594799566630565657e-01,1.30366298381162482034e-01,9.90162953847407822927e-01,5.60800630015644951953e+00,1.47950681069722533855e-01,9,576,5.18935283025105764664e+00,NULL,2.05471176265636847751e-03,1.08591401576995849609e+00,8.4980689903935963227e+03,1.72393533999638748355e-01,298844160);
INSERT INTO "evaluations" VALUES('tiny.confirm',3,4.94335186132759574206e+00,1.40239526089818582481e+02,3.36165794980998455798e+01,1.40948070710103053214e+02,3.39659676269202526199e+00,1.37594799566630565657e-01,1.29840137834034113906e-01,9.894430300913032994e-01,5.60267608524789562096e+00,1.71892870302319145103e-01,12,768,5.12434736887614,2.39785928458210726441e+01,6.10122838335904545299e-04,1.00391805171966552734e+00,6.96935064717264503991e+03,2.59094628999264386948e-01,299630592);
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'tiny');
INSERT INTO "studies" VALUES(2,'tiny.confirm');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MINIMIZE',1,0);
INSERT INTO "study_directions" VALUES(2,'MINIMIZE',2,0);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_system_attributes" VALUES(1,1,'study:metric_names','["validation perplexity"]');
INSERT INTO "study_system_attributes" VALUES(2,1,'dashboard:2:note_ver','1');
INSERT INTO "study_system_attributes" VALUES(3,1,'dashboard:2:note_str:0','"**squentropy**, complete: perplexity 140.71\n\n| | |\n|---|---|\n| loss | squentropy |\n| learning_rate | 5.00e-03 |\n| n_layer | 1 |\n| origin | baseline:usual |\n| weights | 7,600 |\n| run directory | `/home/somebody/project/runs/tiny/1` |\n\nAt its last evaluation:\n\n| | |\n|---|---|\n| perplexity | 140.7 |\n| link_perplexity | 32.98 |\n| story_perplexity | 141.4 |\n| temperature_perplexity | 23.08 |\n| bits_per_byte | 3.404 |\n| accuracy | 0.1371 |\n| calibration_error | 0.1311 |\n| brier_score | 0.9895 |\n| entropy | 5.601 |\n| mean_squared_logit | 0.181 |\n\nA story:\n\n> Once upon a timek\u000e\ufffd theand\ufffdheal\n"');
INSERT INTO "study_system_attributes" VALUES(4,1,'dashboard:1:note_ver','1');
INSERT INTO "study_system_attributes" VALUES(5,1,'dashboard:1:note_str:0','"**cross\\_entropy**, complete: perplexity 135.56\n\n| | |\n|---|---|\n| loss | cross\\_entropy |\n| learning_rate | 5.00e-03 |\n| n_layer | 1 |\n| origin | baseline:usual |\n| weights | 7,600 |\n| run directory | `/home/somebody/project/runs/tiny/0` |\n\nAt its last evaluation:\n\n| | |\n|---|---|\n| perplexity | 135.6 |\n| link_perplexity | 135.6 |\n| story_perplexity | 136.2 |\n| temperature_perplexity | 22.86 |\n| bits_per_byte | 3.378 |\n| accuracy | 0.1653 |\n| calibration_error | 0.1581 |\n| brier_score | 0.9891 |\n| entropy | 5.594 |\n| mean_squared_logit | 0.2306 |\n\nA story:\n\n> Once upon a timek\u000e\ufffd the\u001b\ufffdheal\n"');
INSERT INTO "study_system_attributes" VALUES(6,1,'dashboard:3:note_ver','1');
INSERT INTO "study_system_attributes" VALUES(7,1,'dashboard:3:note_str:0','"**cross\\_entropy**, complete: perplexity 180.89\n\n| | |\n|---|---|\n| loss | cross\\_entropy |\n| learning_rate | 2.57e-03 |\n| n_layer | 2 |\n| origin | sobol |\n| weights | 10,704 |\n| run directory | `/home/somebody/project/runs/tiny/2` |\n\nAt its last evaluation:\n\n| | |\n|---|---|\n| perplexity | 180.9 |\n| link_perplexity | 180.9 |\n| story_perplexity | 181.4 |\n| temperature_perplexity | 27.41 |\n| bits_per_byte | 3.576 |\n| accuracy | 0.121 |\n| calibration_error | 0.1205 |\n| brier_score | 0.9925 |\n| entropy | 5.622 |\n| mean_squared_logit | 0.06793 |\n\nA story:\n\n> Once upon a timek\ufffd\n>  theandtheal\n"');
INSERT INTO "study_system_attributes" VALUES(8,1,'dashboard:note_ver','2');
INSERT INTO "study_system_attributes" VALUES(9,1,'dashboard:note_str:0','"## Does it run?\n\n**squentropy and cross\\_entropy are equivalent: its perplexity is 3.6% above that of cross\\_entropy (95% interval of the change -3.9% to +11.8%), surely less than the 50% that would matter.**\n\nBy perplexity at the best temperature the answer is the same. By perplexity under the loss''s own link it is better (31.79 against 134.87). By bits per byte the question stays open (3.3943 against 3.3698). By top-1 accuracy the question stays open (0.1116 against 0.1035). By calibration error the question stays open (0.1051 against 0.0956). Confirmed perplexities: cross\\_entropy 134.87 (the settings of trial 0), squentropy 139.77 (the settings of trial 1); each is a mean over 2 seeds that neither the search nor the choice of settings used, on 923 tokens of validation stories that no trial of the search was measured on. The answer and its interval are about these settings: the luck of the search is not in them, another search may find others.\n\n3 of 3 trials finished: 3 complete.\n\n| arm | perplexity | trial | configuration |\n|---|---|---|---|\n| cross\\_entropy | 135.56 | 0 | learning\\_rate 5.00e-03, n\\_layer 1 |\n| squentropy | 140.71 | 1 | learning\\_rate 5.00e-03, n\\_layer 1 |\n\n[The arms side by side](/dashboard/compare-studies?ids=10001,10002)\n"');
INSERT INTO "study_system_attributes" VALUES(18,2,'study:metric_names','["validation perplexity"]');
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_user_attributes" VALUES(1,1,'data','{"fingerprint": "214727da8775c97d", "kind": "files", "name": "text", "notice": null, "tokenizer": "bpe-280", "vocab_size": 280, "train_stories": 300, "train_tokens": 10837, "validation_stories": 30, "validation_tokens": 1171, "eval_tokens": 248, "floor_perplexity": null}');
INSERT INTO "study_user_attributes" VALUES(2,1,'device','"cpu"');
INSERT INTO "study_user_attributes" VALUES(3,1,'spec_digest','"c66accd3656a9fa652a1e127233bb90a30b59e4e6187e3e3264bb59e8f995baf"');
INSERT INTO "study_user_attributes" VALUES(4,1,'spec','{"name": "tiny", "description": "Seconds on a CPU.", "question": "Does it run?", "compare": "loss", "metric": "perplexity", "data": {"source": "text", "hub_name": "roneneldan/TinyStories", "max_stories": null, "tokenizer": "bpe", "bpe_vocab_size": 280, "fingerprint": null}, "train": {"block_size": 16, "n_head": 2, "n_embd": 16, "batch_size": 4, "warmup_steps": 2, "max_steps": 12, "eval_interval": 4, "eval_tokens": 200}, "search": {"learning_rate": {"low": 0.001, "high": 0.01, "log": true, "step": null, "choices": null, "when": {}}, "n_layer": {"low": 1, "high": 2, "log": false, "step": null, "choices": null, "when": {}}, "loss": {"low": null, "high": null, "log": false, "step": null, "choices": ["cross_entropy", "squentropy"], "when": {}}}, "baselines": [{"name": "usual", "params": {"learning_rate": 0.005, "n_layer": 1}}], "sampler": {"kind": "tpe", "seed": 0, "startup_trials": 2}, "pruner": {"kind": "none", "warmup_fraction": 0.3, "startup_trials": 2, "shadow_fraction": 0.1}, "verdict": {"margin": 0.5, "top": 1, "screening_seeds": 3, "seeds": 2}}');
INSERT INTO "study_user_attributes" VALUES(5,1,'identity','"8f900c45492c4ddabbfc214c66d62212"');
INSERT INTO "study_user_attributes" VALUES(6,1,'n_trials','3');
INSERT INTO "study_user_attributes" VALUES(7,1,'wall_seconds','6.760310482000023');
INSERT INTO "study_user_attributes" VALUES(8,2,'data','{"fingerprint": "214727da8775c97d", "kind": "files", "name": "text", "notice": null, "tokenizer": "bpe-280", "vocab_size": 280, "train_stories": 300, "train_tokens": 10837, "validation_stories": 30, "validation_tokens": 1171, "eval_tokens": 923, "floor_perplexity": null}');
INSERT INTO "study_user_attributes" VALUES(9,2,'device','"cpu"');
INSERT INTO "study_user_attributes" VALUES(10,2,'spec_digest','"9a9b563d1982faffceccd16e444f969f7b0e7368da639643f1576691d2cc6ec3"');
INSERT INTO "study_user_attributes" VALUES(11,2,'spec','{"name": "tiny.confirm", "description": "Seconds on a CPU.", "question": "Does it run?", "compare": "loss", "metric": "perplexity", "data": {"source": "text", "hub_name": "roneneldan/TinyStories", "max_stories": null, "tokenizer": "bpe", "bpe_vocab_size": 280, "fingerprint": null}, "train": {"block_size": 16, "n_head": 2, "n_embd": 16, "batch_size": 4, "warmup_steps": 2, "max_steps": 12, "eval_interval": 3, "eval_tokens": 1600, "eval_skip_tokens": 200}, "search": {"learning_rate": {"low": 0.001, "high": 0.01, "log": true, "step": null, "choices": null, "when": {}}, "n_layer": {"low": 1, "high": 2, "log": false, "step": null, "choices": null, "when": {}}, "loss": {"low": null, "high": null, "log": false, "step": null, "choices": ["cross_entropy", "squentropy"], "when": {}}, "seed": {"low": 3337, "high": 4236, "log": false, "step": null, "choices": null, "when": {}}}, "baselines": [], "sampler": {"kind": "tpe", "seed": 0, "startup_trials": 2}, "pruner": {"kind": "none", "warmup_fraction": 0.3, "startup_trials": 4, "shadow_fraction": 0.1}, "verdict": {"margin": 0.5, "top": 1, "screening_seeds": 3, "seeds": 2}}');
INSERT INTO "study_user_attributes" VALUES(12,2,'identity','"c92e7d599c5848dc8355470691cbfb9c"');
INSERT INTO "study_user_attributes" VALUES(13,2,'of','"8f900c45492c4ddabbfc214c66d62212"');
INSERT INTO "study_user_attributes" VALUES(14,2,'n_trials','4');
INSERT INTO "study_user_attributes" VALUES(15,2,'wall_seconds','12.563835726999969');
INSERT INTO "study_user_attributes" VALUES(16,1,'verdict','{"answer": "squentropy and cross_entropy are equivalent: its perplexity is 3.6% above that of cross_entropy (95% interval of the change -3.9% to +11.8%), surely less than the 50% that would matter. By perplexity at the best temperature the answer is the same. By perplexity under the loss''s own link it is better (31.79 against 134.87). By bits per byte the question stays open (3.3943 against 3.3698). By top-1 accuracy the question stays open (0.1116 against 0.1035). By calibration error the question stays open (0.1051 against 0.0956). Confirmed perplexities: cross_entropy 134.87 (the settings of trial 0), squentropy 139.77 (the settings of trial 1); each is a mean over 2 seeds that neither the search nor the choice of settings used, on 923 tokens of validation stories that no trial of the search was measured on. The answer and its interval are about these settings: the luck of the search is not in them, another search may find others.", "headline": ["squentropy and cross_entropy are equivalent: its perplexity is 3.6% above that of cross_entropy (95% interval of the change -3.9% to +11.8%), surely less than the 50% that would matter."], "arms": ["cross_entropy", "squentropy"], "text": "text", "looks": [2], "study": "tiny", "margin": 0.5, "seeds": [3337, 3338], "held_back_stories": 24, "held_back_tokens": 923, "confirmed": [{"arm": "cross_entropy", "trial": 0, "params": {"learning_rate": 0.005, "n_layer": 1}, "perplexities": [133.61816096918272, 136.13487376771383], "perplexity": 134.87064720173095, "blown_up": [], "unstable": null}, {"arm": "squentropy", "trial": 1, "params": {"learning_rate": 0.005, "n_layer": 1}, "perplexities": [139.29576910041445, 140.23952608981858], "perplexity": 139.7668510232628, "blown_up": [], "unstable": null}], "comparisons": [{"arm": "squentropy", "reference": "cross_entropy", "answer": "equivalent", "difference": {"per_seed": [0.041613320488067096, 0.02970574813958482], "mean": 0.03565953431382596, "sd": 0.008419925155081241, "low": -0.039990491771488196, "high": 0.11130956039914011, "p": 0.10531982094676923, "p_equivalent": 0.005124274528662716}, "p_holm": 0.10531982094676923, "ratio": 1.0363029608229612, "ratio_low": 0.9607985746012933, "ratio_high": 1.117740861612005, "further_seeds": 0, "bootstrap": [1.0293745789806867, 1.0432238504152092], "readings": [{"yardstick": "perplexity under the loss''s own link", "is_perplexity": true, "arm_mean": 31.785667125698346, "reference_mean": 134.87064720173095, "difference": {"per_seed": [-1.4919746322466518, -1.3986267304756272], "mean": -1.4453006813611395, "sd": 0.06600693435182721, "low": -2.038349457158621, "high": -0.8522519055636582, "p": 0.02055159707770462, "p_equivalent": 0.9857219594272683}, "answer": "better"}, {"yardstick": "perplexity at the best temperature", "is_perplexity": true, "arm_mean": 24.38833059110327, "reference_mean": 24.06059837003906, "difference": {"per_seed": [0.01579535149546407, 0.011263015081667938], "mean": 0.013529183288566005, "sd": 0.0032048458128139646, "low": -0.015265213914890729, "high": 0.04232358049202274, "p": 0.10565439516988695, "p_equivalent": 0.0018404429397528453}, "answer": "equivalent"}, {"yardstick": "bits per byte", "is_perplexity": false, "arm_mean": 3.394276978166814, "reference_mean": 3.3697751700400262, "difference": {"per_seed": [0.02859267833236423, 0.020410937921210515], "mean": 0.024501808126787372, "sd": 0.005785364126634804, "low": -0.027477626254389237, "high": 0.07648124250796398, "p": 0.1053198209467695, "p_equivalent": 0.9473400895266153}, "answer": "inconclusive"}, {"yardstick": "top-1 accuracy", "is_perplexity": false, "arm_mean": 0.11159263271939329, "reference_mean": 0.10346695557963165, "difference": {"per_seed": [0.016251354279523303, 0.0], "mean": 0.008125677139761651, "sd": 0.011491442814515947, "low": -0.0951208402181043, "high": 0.11137219449762759, "p": 0.5000000000000001, "p_equivalent": 0.75}, "answer": "inconclusive"}, {"yardstick": "calibration error", "is_perplexity": false, "arm_mean": 0.10509142835340982, "reference_mean": 0.09559915380104408, "difference": {"per_seed": [0.017612589715413934, 0.0013719593893175563], "mean": 0.009492274552365745, "sd": 0.01148385983432664, "low": -0.09368611243158834, "high": 0.11267066153631983, "p": 0.4505094764386536, "p_equivalent": 0.7747452617806732}, "answer": "inconclusive"}]}], "ledger": [{"arm": "cross_entropy", "asked": 2, "complete": 2, "pruned": 0, "diverged": 0, "oom": 0, "timeout": 0, "failed": 0, "running": 0, "waiting": 0, "tokens": 1536, "device_seconds": 0.44710052800110134, "tuned_parameters": 2}, {"arm": "squentropy", "asked": 1, "complete": 1, "pruned": 0, "diverged": 0, "oom": 0, "timeout": 0, "failed": 0, "running": 0, "waiting": 0, "tokens": 768, "device_seconds": 0.16526303199862014, "tuned_parameters": 2}], "winners_curse": [], "shadows": [{"arm": "cross_entropy", "shadows": 0, "among_best": 0, "rate": null, "low": 0.0, "high": 1.0}, {"arm": "squentropy", "shadows": 0, "among_best": 0, "rate": null, "low": 0.0, "high": 1.0}], "original": []}');
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT, 
	intermediate_value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_intermediate_values" VALUES(1,1,4,2.14082291689088691547e+02,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(2,2,4,2.15406905289507591308e+02,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(3,1,8,1.52495310615727021289e+02,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(4,2,8,1.55518360244337486624e+02,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(5,1,12,1.35559392491583764696e+02,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(6,2,12,1.40709444243634123955e+02,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(7,3,4,2.31157461890467800461e+02,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(8,3,8,1.92390602382272618347e+02,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(9,3,12,1.80892306117389381377e+02,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(10,4,3,2.36459081296191243382e+02,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(11,4,6,1.72067831614251645078e+02,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(12,5,3,237.796798685171,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(13,4,9,1.43180813556398419447e+02,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(14,5,6,1.74335779172883150065e+02,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(15,4,12,1.33618160969182724789e+02,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(16,5,9,1.47068324396243923501e+02,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(17,5,12,1.39295769100414446484e+02,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(18,6,3,2.32291116849599973189e+02,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(19,6,6,1.71800720166251238646e+02,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(20,6,9,1.44977797573382360951e+02,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(21,7,3,2.34001455202121491075e+02,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(22,7,6,1.74269487541368022225e+02,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(23,6,12,1.3613487376771382742e+02,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(24,7,9,1.48049504996107884838e+02,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(25,7,12,1.40239526089818582481e+02,'FINITE');
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'loss',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["cross_entropy", "squentropy"]}}');
INSERT INTO "trial_params" VALUES(2,1,'learning_rate',0.005,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.01, "log": true}}');
INSERT INTO "trial_params" VALUES(3,1,'n_layer',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 2}}');
INSERT INTO "trial_params" VALUES(4,2,'loss',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["cross_entropy", "squentropy"]}}');
INSERT INTO "trial_params" VALUES(5,2,'learning_rate',0.005,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.01, "log": true}}');
INSERT INTO "trial_params" VALUES(6,2,'n_layer',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 2}}');
INSERT INTO "trial_params" VALUES(7,3,'loss',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["cross_entropy", "squentropy"]}}');
INSERT INTO "trial_params" VALUES(8,3,'learning_rate',2.57009743737758459061e-03,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.01, "log": true}}');
INSERT INTO "trial_params" VALUES(9,3,'n_layer',2.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 2}}');
INSERT INTO "trial_params" VALUES(10,4,'loss',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["cross_entropy", "squentropy"]}}');
INSERT INTO "trial_params" VALUES(11,4,'learning_rate',0.005,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.01, "log": true}}');
INSERT INTO "trial_params" VALUES(12,4,'n_layer',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 2}}');
INSERT INTO "trial_params" VALUES(13,4,'seed',3337.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 3337, "high": 4236}}');
INSERT INTO "trial_params" VALUES(14,5,'loss',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["cross_entropy", "squentropy"]}}');
INSERT INTO "trial_params" VALUES(15,5,'learning_rate',0.005,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.01, "log": true}}');
INSERT INTO "trial_params" VALUES(16,5,'n_layer',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 2}}');
INSERT INTO "trial_params" VALUES(17,5,'seed',3337.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 3337, "high": 4236}}');
INSERT INTO "trial_params" VALUES(18,6,'loss',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["cross_entropy", "squentropy"]}}');
INSERT INTO "trial_params" VALUES(19,6,'learning_rate',0.005,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.01, "log": true}}');
INSERT INTO "trial_params" VALUES(20,6,'n_layer',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 2}}');
INSERT INTO "trial_params" VALUES(21,6,'seed',3338.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 3337, "high": 4236}}');
INSERT INTO "trial_params" VALUES(22,7,'loss',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["cross_entropy", "squentropy"]}}');
INSERT INTO "trial_params" VALUES(23,7,'learning_rate',0.005,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.01, "log": true}}');
INSERT INTO "trial_params" VALUES(24,7,'n_layer',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 2}}');
INSERT INTO "trial_params" VALUES(25,7,'seed',3338.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 3337, "high": 4236}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_system_attributes" VALUES(1,2,'artifacts:f2455aac-1c17-4445-94d9-0734f3479c64','"{\"artifact_id\": \"f2455aac-1c17-4445-94d9-0734f3479c64\", \"filename\": \"curve.csv\", \"mimetype\": \"text/csv\", \"encoding\": null}"');
INSERT INTO "trial_system_attributes" VALUES(2,2,'artifacts:627d074d-af1a-4943-8887-90f8247dae08','"{\"artifact_id\": \"627d074d-af1a-4943-8887-90f8247dae08\", \"filename\": \"curve.svg\", \"mimetype\": \"image/svg+xml\", \"encoding\": null}"');
INSERT INTO "trial_system_attributes" VALUES(3,2,'artifacts:5caed661-5576-4af6-bd5f-2dc9ca551601','"{\"artifact_id\": \"5caed661-5576-4af6-bd5f-2dc9ca551601\", \"filename\": \"samples.jsonl\", \"mimetype\": \"application/octet-stream\", \"encoding\": null}"');
INSERT INTO "trial_system_attributes" VALUES(4,1,'artifacts:b7964c20-bef4-4424-ab73-6ccabfa8724b','"{\"artifact_id\": \"b7964c20-bef4-4424-ab73-6ccabfa8724b\", \"filename\": \"curve.csv\", \"mimetype\": \"text/csv\", \"encoding\": null}"');
INSERT INTO "trial_system_attributes" VALUES(5,1,'artifacts:dab2a9e5-0949-4898-ae9b-eed1562ce791','"{\"artifact_id\": \"dab2a9e5-0949-4898-ae9b-eed1562ce791\", \"filename\": \"curve.svg\", \"mimetype\": \"image/svg+xml\", \"encoding\": null}"');
INSERT INTO "trial_system_attributes" VALUES(6,1,'artifacts:b48e6e54-b0d8-4de1-85a9-b2835ef1f6d9','"{\"artifact_id\": \"b48e6e54-b0d8-4de1-85a9-b2835ef1f6d9\", \"filename\": \"samples.jsonl\", \"mimetype\": \"application/octet-stream\", \"encoding\": null}"');
INSERT INTO "trial_system_attributes" VALUES(7,3,'artifacts:3263b639-f670-4145-a930-8d1d237911af','"{\"artifact_id\": \"3263b639-f670-4145-a930-8d1d237911af\", \"filename\": \"curve.csv\", \"mimetype\": \"text/csv\", \"encoding\": null}"');
INSERT INTO "trial_system_attributes" VALUES(8,3,'artifacts:7308ad62-109b-4c2c-9f4b-2ab064b3a18a','"{\"artifact_id\": \"7308ad62-109b-4c2c-9f4b-2ab064b3a18a\", \"filename\": \"curve.svg\", \"mimetype\": \"image/svg+xml\", \"encoding\": null}"');
INSERT INTO "trial_system_attributes" VALUES(9,3,'artifacts:21741b9b-d6fc-46d5-af77-b6a547b7d1ab','"{\"artifact_id\": \"21741b9b-d6fc-46d5-af77-b6a547b7d1ab\", \"filename\": \"samples.jsonl\", \"mimetype\": \"application/octet-stream\", \"encoding\": null}"');
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_user_attributes" VALUES(1,1,'arm','"cross_entropy"');
INSERT INTO "trial_user_attributes" VALUES(2,1,'origin','"baseline:usual"');
INSERT INTO "trial_user_attributes" VALUES(3,1,'run_dir','"/home/somebody/project/runs/tiny/0"');
INSERT INTO "trial_user_attributes" VALUES(4,1,'n_params','7600');
INSERT INTO "trial_user_attributes" VALUES(5,2,'arm','"squentropy"');
INSERT INTO "trial_user_attributes" VALUES(6,2,'origin','"baseline:usual"');
INSERT INTO "trial_user_attributes" VALUES(7,2,'run_dir','"/home/somebody/project/runs/tiny/1"');
INSERT INTO "trial_user_attributes" VALUES(8,2,'n_params','7600');
INSERT INTO "trial_user_attributes" VALUES(9,2,'outcome','"complete"');
INSERT INTO "trial_user_attributes" VALUES(10,3,'arm','"cross_entropy"');
INSERT INTO "trial_user_attributes" VALUES(11,3,'origin','"sobol"');
INSERT INTO "trial_user_attributes" VALUES(12,3,'run_dir','"/home/somebody/project/runs/tiny/2"');
INSERT INTO "trial_user_attributes" VALUES(13,3,'n_params','10704');
INSERT INTO "trial_user_attributes" VALUES(14,1,'outcome','"complete"');
INSERT INTO "trial_user_attributes" VALUES(15,3,'outcome','"complete"');
INSERT INTO "trial_user_attributes" VALUES(16,4,'arm','"cross_entropy"');
INSERT INTO "trial_user_attributes" VALUES(17,4,'origin','"trial:0"');
INSERT INTO "trial_user_attributes" VALUES(18,4,'of_trial','0');
INSERT INTO "trial_user_attributes" VALUES(19,5,'arm','"squentropy"');
INSERT INTO "trial_user_attributes" VALUES(20,5,'origin','"trial:1"');
INSERT INTO "trial_user_attributes" VALUES(21,5,'of_trial','1');
INSERT INTO "trial_user_attributes" VALUES(22,6,'arm','"cross_entropy"');
INSERT INTO "trial_user_attributes" VALUES(23,6,'origin','"trial:0"');
INSERT INTO "trial_user_attributes" VALUES(24,6,'of_trial','0');
INSERT INTO "trial_user_attributes" VALUES(25,7,'arm','"squentropy"');
INSERT INTO "trial_user_attributes" VALUES(26,7,'origin','"trial:1"');
INSERT INTO "trial_user_attributes" VALUES(27,7,'of_trial','1');
INSERT INTO "trial_user_attributes" VALUES(28,4,'run_dir','"/home/somebody/project/runs/tiny.confirm/0"');
INSERT INTO "trial_user_attributes" VALUES(29,4,'n_params','7600');
INSERT INTO "trial_user_attributes" VALUES(30,5,'run_dir','"/home/somebody/project/runs/tiny.confirm/1"');
INSERT INTO "trial_user_attributes" VALUES(31,5,'n_params','7600');
INSERT INTO "trial_user_attributes" VALUES(32,4,'outcome','"complete"');
INSERT INTO "trial_user_attributes" VALUES(33,6,'run_dir','"/home/somebody/project/runs/tiny.confirm/2"');
INSERT INTO "trial_user_attributes" VALUES(34,6,'n_params','7600');
INSERT INTO "trial_user_attributes" VALUES(35,5,'outcome','"complete"');
INSERT INTO "trial_user_attributes" VALUES(36,7,'run_dir','"/home/somebody/project/runs/tiny.confirm/3"');
INSERT INTO "trial_user_attributes" VALUES(37,7,'n_params','7600');
INSERT INTO "trial_user_attributes" VALUES(38,6,'outcome','"complete"');
INSERT INTO "trial_user_attributes" VALUES(39,7,'outcome','"complete"');
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT, 
	value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,2,0,1.40709444243634123955e+02,'FINITE');
INSERT INTO "trial_values" VALUES(2,1,0,1.35559392491583764696e+02,'FINITE');
INSERT INTO "trial_values" VALUES(3,3,0,1.80892306117389381377e+02,'FINITE');
INSERT INTO "trial_values" VALUES(4,4,0,1.33618160969182724789e+02,'FINITE');
INSERT INTO "trial_values" VALUES(5,5,0,1.39295769100414446484e+02,'FINITE');
INSERT INTO "trial_values" VALUES(6,6,0,1.3613487376771382742e+02,'FINITE');
INSERT INTO "trial_values" VALUES(7,7,0,1.40239526089818582481e+02,'FINITE');
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-29 10:33:44.442084','2026-11-29 10:33:49.427015');
INSERT INTO "trials" VALUES(2,1,1,'COMPLETE','2026-11-29 10:33:44.564048','2026-11-29 10:33:48.940801');
INSERT INTO "trials" VALUES(3,2,1,'COMPLETE','2026-11-29 10:33:49.054867','2026-11-29 10:33:49.809480');
INSERT INTO "trials" VALUES(4,0,2,'COMPLETE','2026-11-29 10:34:09.751349','2026-11-29 10:34:20.877298');
INSERT INTO "trials" VALUES(5,1,2,'COMPLETE','2026-11-29 10:34:20.275472','2026-11-29 10:34:21.151349');
INSERT INTO "trials" VALUES(6,2,2,'COMPLETE','2026-11-29 10:34:20.894003','2026-11-29 10:34:21.723817');
INSERT INTO "trials" VALUES(7,3,2,'COMPLETE','2026-11-29 10:34:21.191960','2026-11-29 10:34:21.939592');
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'5.0.0');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
CREATE INDEX ix_trials_study_id ON trials (study_id);
COMMIT;
